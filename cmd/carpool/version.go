package main

import (
	"fmt"
	"runtime"
	"runtime/debug"
	"strings"

	"github.com/spf13/cobra"
)

// buildInfo is what `carpool version` shows.
type buildInfo struct {
	Version  string `json:"version"`            // a release, or "devel"
	Revision string `json:"revision,omitempty"` // of the source
	Modified bool   `json:"modified,omitempty"` // the source had changes beyond the revision
	Built    string `json:"built,omitempty"`    // time of the revision, RFC 3339
	Go       string `json:"go"`
	Platform string `json:"platform"`
}

func readBuildInfo() buildInfo {
	b := buildInfo{Version: "devel", Go: runtime.Version(), Platform: runtime.GOOS + "/" + runtime.GOARCH}
	info, ok := debug.ReadBuildInfo()
	if !ok {
		return b
	}
	if v := info.Main.Version; v != "" && v != "(devel)" {
		b.Version = v
	}
	for _, s := range info.Settings {
		switch s.Key {
		case "vcs.revision":
			b.Revision = s.Value
		case "vcs.time":
			b.Built = s.Value
		case "vcs.modified":
			b.Modified = s.Value == "true"
		}
	}
	return b
}

// line is the version for people.
func (b buildInfo) line() string {
	text := "carpool " + b.Version
	if b.Revision != "" && !strings.Contains(b.Version, b.Revision[:min(12, len(b.Revision))]) {
		text += fmt.Sprintf(" (%.12s)", b.Revision)
	}
	return text + ", " + b.Go + ", " + b.Platform + "\n"
}

func newVersionCommand(a *app) *cobra.Command {
	return &cobra.Command{
		Use:     "version",
		Short:   "Show the version of this program",
		Example: "  carpool version\n  carpool version --output json",
		Args:    arguments(),
		RunE: func(*cobra.Command, []string) error {
			b := readBuildInfo()
			return a.show(b, b.line)
		},
	}
}
