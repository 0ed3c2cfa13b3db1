"""Where the state of an app's workflows is kept."""
