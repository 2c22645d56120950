package main

import (
	"strings"
	"testing"
)

func TestTally(t *testing.T) {
	t.Parallel()
	tests := map[string]struct {
		events string
		want   string
		shown  string
	}{
		"subtests count": {
			events: `{"Action":"run","Package":"p","Test":"TestA"}
{"Action":"pass","Package":"p","Test":"TestA/x","Elapsed":0.1}
{"Action":"pass","Package":"p","Test":"TestA","Elapsed":0.1}
{"Action":"pass","Package":"p","Elapsed":0.2}`,
			want:  "2 passed, 0 failed",
			shown: "ok   p (2 tests, 0.2 s)\n",
		},
		"output of a failure": {
			events: `{"Action":"output","Package":"p","Test":"TestA","Output":"    a_test.go:1: no\n"}
{"Action":"output","Package":"p","Test":"TestB","Output":"noise\n"}
{"Action":"fail","Package":"p","Test":"TestA","Elapsed":0}
{"Action":"pass","Package":"p","Test":"TestB","Elapsed":0}
{"Action":"fail","Package":"p","Elapsed":0.2}`,
			want:  "1 passed, 1 failed",
			shown: "    a_test.go:1: no\nFAIL p (0.2 s)\n",
		},
		"build failure": {
			events: `{"ImportPath":"p","Action":"build-output","Output":"a.go:1: syntax error\n"}
{"ImportPath":"p","Action":"build-fail"}
{"Action":"fail","Package":"p","Elapsed":0,"FailedBuild":"p"}`,
			want:  "0 passed, 1 failed",
			shown: "a.go:1: syntax error\nFAIL p (0.0 s)\n",
		},
		"crash": {
			events: `{"Action":"output","Package":"p","Test":"TestA","Output":"panic: boom\n"}
{"Action":"fail","Package":"p","Elapsed":1}`,
			want:  "0 passed, 1 failed",
			shown: "panic: boom\nFAIL p (1.0 s)\n",
		},
		"package without tests": {
			events: `{"Action":"output","Package":"p","Output":"?   \tp\t[no test files]\n"}
{"Action":"skip","Package":"p","Elapsed":0}`,
			want: "0 passed, 0 failed",
		},
		"skips are told": {
			events: `{"Action":"skip","Package":"p","Test":"TestA","Elapsed":0}
{"Action":"pass","Package":"p","Elapsed":0}`,
			want: "0 passed, 0 failed, 1 skipped",
		},
	}
	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			var out strings.Builder
			total := newTally(&out)
			if err := total.read(strings.NewReader(test.events)); err != nil {
				t.Fatal(err)
			}
			if got := total.String(); got != test.want {
				t.Errorf("closing line %q, want %q", got, test.want)
			}
			if got := out.String(); got != test.shown {
				t.Errorf("shown %q, want %q", got, test.shown)
			}
		})
	}
}

func TestRunFailsWithoutTests(t *testing.T) {
	t.Parallel()
	var out, errs strings.Builder
	if run(t.Context(), []string{"-run", "^$", "."}, &out, &errs) {
		t.Error("a run without tests passed")
	}
	if got := out.String(); !strings.HasSuffix(got, "0 passed, 0 failed\n") {
		t.Errorf("output %q", got)
	}
}
