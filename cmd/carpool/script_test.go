package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/rogpeppe/go-internal/testscript"

	"carpool/internal/fleet"
)

func TestMain(m *testing.M) {
	testscript.Main(m, map[string]func(){"carpool": main})
}

// TestScripts runs testdata/script: one story for each command, against a control plane of its own. The scripts know
//
//	exits N COMMAND…        the command ends with exit status N
//	json FILE PATH VALUE    the value at a dotted path (len is a list's length) of a JSON file or of stdout
//	ship FILE               the exchanges of a JSON file arrive in the books; their ages are in seconds
func TestScripts(t *testing.T) {
	testscript.Run(t, testscript.Params{
		Dir: filepath.Join("testdata", "script"),
		Setup: func(env *testscript.Env) error {
			data := filepath.Join(env.WorkDir, "data")
			server, err := startServer(data)
			if err != nil {
				return err
			}
			env.Defer(func() {
				if err := server.stop(); err != nil {
					t.Error(err)
				}
			})
			env.Values["server"] = server
			env.Vars = append(env.Vars, "CARPOOL_DATA="+data, "ADMIN_URL="+server.url, "ADMIN_TOKEN="+testAdminToken, "TZ=UTC")
			return nil
		},
		Cmds: map[string]func(*testscript.TestScript, bool, []string){
			"exits": exits, "json": jsonValue, "ship": ship,
		},
	})
}

func exits(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) < 2 {
		ts.Fatalf("usage: exits N COMMAND…")
	}
	code := 0
	err := ts.Exec(args[1], args[2:]...)
	if exit, ok := errors.AsType[*exec.ExitError](err); ok {
		code = exit.ExitCode()
	} else if err != nil {
		ts.Fatalf("%v", err)
	}
	if strconv.Itoa(code) != args[0] {
		ts.Fatalf("exit status %d, not %s", code, args[0])
	}
}

func jsonValue(ts *testscript.TestScript, neg bool, args []string) {
	if len(args) != 3 {
		ts.Fatalf("usage: json FILE PATH VALUE")
	}
	decoder := json.NewDecoder(strings.NewReader(ts.ReadFile(args[0])))
	decoder.UseNumber()
	var value any
	ts.Check(decoder.Decode(&value))
	for step := range strings.SplitSeq(args[1], ".") {
		switch v := value.(type) {
		case map[string]any:
			value = v[step]
		case []any:
			if step == "len" {
				value = len(v)
				continue
			}
			i, err := strconv.Atoi(step)
			if ts.Check(err); i >= len(v) {
				ts.Fatalf("%s: there are %d elements", args[1], len(v))
			}
			value = v[i]
		default:
			ts.Fatalf("%s: nothing at %q", args[1], step)
		}
	}
	if got := fmt.Sprint(value); (got == args[2]) == neg {
		ts.Fatalf("%s is %s", args[1], got)
	}
}

func ship(ts *testscript.TestScript, neg bool, args []string) {
	server, ok := ts.Value("server").(*testServer)
	if neg || len(args) != 1 || !ok {
		ts.Fatalf("usage: ship FILE")
	}
	var stories []struct {
		Age int64 // seconds
		fleet.Entry
	}
	ts.Check(json.Unmarshal([]byte(ts.ReadFile(args[0])), &stories))
	entries := make([]fleet.Entry, len(stories))
	for i, s := range stories {
		entries[i] = s.Entry
		entries[i].StartedAt = time.Now().Add(-time.Duration(s.Age) * time.Second)
		entries[i].ID = fmt.Sprintf("01930000-0000-7000-8000-%012d", i+1)
	}
	ts.Check(server.node.ship(context.Background(), entries))
}
