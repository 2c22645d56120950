package main

import (
	"strings"
	"testing"

	"carpool/internal/control"
)

func TestBranches(t *testing.T) {
	var tree []control.SessionAgent
	for _, depth := range []int{0, 1, 2, 2, 3, 1, 2, 1} {
		tree = append(tree, control.SessionAgent{Depth: depth})
	}
	want := []string{"", "├ ", "│ ├ ", "│ └ ", "│   └ ", "├ ", "│ └ ", "└ "}
	if got := branches(tree); strings.Join(got, "\n") != strings.Join(want, "\n") {
		t.Errorf("drawn is:\n%s", strings.Join(got, "\n"))
	}
}
