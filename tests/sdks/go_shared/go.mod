module tests.sdks/go_shared

go 1.26.0
