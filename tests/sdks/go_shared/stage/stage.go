// Package stage is what every scenario needs, and the command line that tests/sdks/README.md asks for.
package stage

import (
	"bufio"
	"bytes"
	"cmp"
	"context"
	"encoding/json"
	"fmt"
	"log"
	"os"
	"reflect"
	"runtime/debug"
	"time"
)

const scenarioTime = 30 * time.Second

// Standard output is for the results alone; what the SDK prints goes to standard error.
var results = json.NewEncoder(os.Stdout)

func init() {
	results.SetEscapeHTML(false)
	os.Stdout = os.Stderr
}

type line struct {
	Ready    bool    `json:"ready,omitempty"`
	Scenario string  `json:"scenario,omitempty"`
	Result   string  `json:"result,omitempty"`
	Detail   string  `json:"detail,omitempty"`
	Seconds  float64 `json:"seconds,omitempty"`
}

func say(l line) {
	if err := results.Encode(l); err != nil {
		log.Fatal(err)
	}
}

// Scenario fails by the checks of its stage; what it returns is shown beside "pass".
type Scenario func(s *Stage) string

// Programme has the scenarios of a program by name, and the reasons for those that the SDK has no API for.
type Programme struct {
	Scenarios  map[string]Scenario
	NotOffered map[string]string
}

// Stage is one scenario that is being played.
type Stage struct {
	context.Context
}

// What a failed check panics with.
type failure string

// Fail ends the scenario.
func (s *Stage) Fail(format string, args ...any) {
	panic(failure(fmt.Sprintf(format, args...)))
}

// Check ends the scenario unless the condition holds.
func (s *Stage) Check(condition bool, format string, args ...any) {
	if !condition {
		s.Fail(format, args...)
	}
}

// Equal ends the scenario unless the two are deeply equal.
func (s *Stage) Equal(actual, expected any, what string) {
	if !reflect.DeepEqual(actual, expected) {
		s.Fail("%s: expected %.200v, got %.200v", what, expected, actual)
	}
}

// OK ends the scenario if there is an error.
func (s *Stage) OK(err error, what string) {
	if err != nil {
		s.Fail("%s: %T: %v", what, err, err)
	}
}

// Until asks again and again until the condition holds.
func (s *Stage) Until(what string, condition func() bool) {
	for end := time.Now().Add(10 * time.Second); !condition(); time.Sleep(50 * time.Millisecond) {
		s.Check(time.Now().Before(end), "not within 10 s: %s", what)
	}
}

// Eventually is as Until, for what takes as long as it likes within the scenario.
func (s *Stage) Eventually(what string, condition func() bool) {
	for !condition() {
		s.Check(s.Err() == nil, "never: %s", what)
		time.Sleep(100 * time.Millisecond)
	}
}

// Early begins a wait half a second before what it waits for.
func (s *Stage) Early(wait, begin func() error) {
	ended := make(chan error, 1)
	go func() { ended <- wait() }()
	select {
	case err := <-ended:
		s.Fail("the wait ended before there was anything: %v", err)
	case <-time.After(500 * time.Millisecond):
	}
	s.OK(begin(), "start")
	s.OK(<-ended, "wait")
}

// LingerTime is how long the activity of the scenario "graceful-stop" takes.
const LingerTime = 4 * time.Second

// Inputs is what the scenario "inputs" gives to an activity, before it gives nothing.
var Inputs = []any{"text", 7, []int{1, 2}, []int{}, nil, map[string]int{"a": 1}}

// Shown is what the activity must have been given then, as JSON.
var Shown = []string{`"text"`, "7", "[1,2]", "[]", "null", `{"a":1}`, "null"}

// Show returns JSON without spaces; nothing is null.
func Show(input json.RawMessage) (string, error) {
	if len(input) == 0 {
		return "null", nil
	}
	var shown bytes.Buffer
	err := json.Compact(&shown, input)
	return shown.String(), err
}

var ids int

// NewID returns an instance ID that no other run uses.
func NewID(name string) string {
	ids++
	return fmt.Sprintf("%s-%s-%d", os.Getenv("RUN_ID"), name, ids)
}

func play(name string, p Programme) {
	if reason, ok := p.NotOffered[name]; ok {
		say(line{Scenario: name, Result: "not offered", Detail: reason})
		return
	}
	scene, ok := p.Scenarios[name]
	if !ok {
		say(line{Scenario: name, Result: "fail", Detail: "this program does not know it"})
		return
	}
	ctx, cancel := context.WithTimeout(context.Background(), scenarioTime)
	defer cancel()
	started := time.Now()
	outcome := make(chan line, 1)
	go func() {
		defer func() {
			switch thrown := recover().(type) {
			case nil:
			case failure:
				outcome <- line{Result: "fail", Detail: string(thrown)}
			default:
				log.Printf("%v\n%s", thrown, debug.Stack())
				outcome <- line{Result: "fail", Detail: fmt.Sprintf("%T: %v", thrown, thrown)}
			}
		}()
		outcome <- line{Result: "pass", Detail: scene(&Stage{ctx})}
	}()
	var last line
	select {
	case last = <-outcome:
	case <-ctx.Done():
		last = line{Result: "fail", Detail: "timed out"}
	}
	last.Scenario, last.Seconds = name, float64(time.Since(started).Milliseconds())/1000
	say(last)
}

// Run does what the command line asks for.
func Run(p Programme) {
	say(line{Ready: true})
	command := "serve"
	if len(os.Args) > 1 {
		command = os.Args[1]
	}
	if command == "run" {
		for _, name := range os.Args[2:] {
			play(name, p)
		}
		return
	}
	for input := bufio.NewScanner(os.Stdin); input.Scan(); {
		if command == "idle" {
			play(cmp.Or(input.Text(), "hello"), p)
		}
	}
}
