package config

import (
	"fmt"
	"slices"
	"strings"
)

// readEnv applies the variables that start with CARPOOL_. Four of them belong to
// the command line: CARPOOL_URL, CARPOOL_TOKEN and CARPOOL_CONFIG are left alone,
// CARPOOL_DATA is another name of CARPOOL_DATA_DIR.
func (d *decoder) readEnv(env []string) {
	d.layer = layerEnv
	byEnv := make(map[string]field)
	for _, f := range d.fields {
		if f.env != "" {
			byEnv[f.env] = f
		}
	}
	values := environment(env)
	names := make([]string, 0, len(values))
	for name := range values {
		if strings.HasPrefix(name, envPrefix) && values[name] != "" {
			names = append(names, name)
		}
	}
	slices.Sort(names)
	for _, name := range names {
		value := values[name]
		d.source = name
		f, known := byEnv[name]
		switch {
		case name == "CARPOOL_URL" || name == "CARPOOL_TOKEN" || name == "CARPOOL_CONFIG":
		case name == "CARPOOL_DATA":
			d.setText(d.byPath["dataDir"], value)
		case name == "CARPOOL_DATA_DIR" && values["CARPOOL_DATA"] != "" && values["CARPOOL_DATA"] != value:
			d.problems = append(d.problems, Problem{Source: name, Key: "dataDir", Message: "is another name of CARPOOL_DATA, and the two differ; keep one of them"})
		case fromKubernetes(name, value):
			if known {
				d.warnings = append(d.warnings, name+" is ignored: Kubernetes set it for a service; set enableServiceLinks: false, or give the service another name")
			}
		case known:
			d.setText(f, value)
		default:
			d.unknownVariable(name, byEnv)
		}
	}
	d.foldSynonyms()
}

// environment turns NAME=VALUE lines into a map; the last one of a name wins, as
// for os/exec.
func environment(env []string) map[string]string {
	out := make(map[string]string, len(env))
	for _, line := range env {
		if name, value, ok := strings.Cut(line, "="); ok {
			out[name] = value
		}
	}
	return out
}

// unknownVariable is an error inside a section's name, where it must be a typing
// error, and a warning elsewhere, where it may be somebody else's.
func (d *decoder) unknownVariable(name string, byEnv map[string]field) {
	candidates := make([]string, 0, len(byEnv))
	for candidate := range byEnv {
		candidates = append(candidates, candidate)
	}
	slices.Sort(candidates)
	hint := "run 'carpool config schema' for the keys there are"
	if near, ok := nearest(name, candidates); ok {
		hint = "did you mean " + near + "?"
	}
	for _, f := range d.fields {
		if f.section && strings.HasPrefix(name, envName(f.path)+"_") {
			d.problems = append(d.problems, Problem{Source: name, Message: fmt.Sprintf("no key of the section %s has this name; %s", f.path, hint)})
			return
		}
	}
	d.warnings = append(d.warnings, name+" is not a known variable and is ignored; "+hint)
}

// fromKubernetes recognises what Kubernetes sets in every container for each
// service of the namespace, such as CARPOOL_SERVER_PORT=tcp://10.0.0.1:8080 for a
// service called carpool-server.
func fromKubernetes(name, value string) bool {
	for _, scheme := range []string{"tcp://", "udp://", "sctp://"} {
		if strings.HasPrefix(value, scheme) {
			return true
		}
	}
	if strings.HasSuffix(name, "_SERVICE_HOST") || strings.Contains(name, "_SERVICE_PORT") {
		return true
	}
	_, rest, ok := strings.Cut(name, "_PORT_")
	if !ok {
		return false
	}
	parts := strings.Split(rest, "_")
	return len(parts) >= 2 && digits(parts[0]) && slices.Contains([]string{"TCP", "UDP", "SCTP"}, parts[1])
}
