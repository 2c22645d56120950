package config

import (
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strings"
)

// Options says what Load reads.
type Options struct {
	File       string     // YAML or JSON; empty means no file
	BaseDir    string     // what relative paths in the file are relative to; empty means the file's folder
	DataDir    string     // flag --data; wins over everything else
	Env        []string   // as os.Environ gives it; nil means no environment
	Overrides  []Override // flags, applied last
	CheckFiles bool       // also read and check the files and variables that the configuration names
	Hostname   string     // default of node.name; empty asks the operating system
}

// Override is one key set by a flag. Value is written as in the environment.
type Override struct {
	Key    string // dotted path, such as server.port
	Value  string
	Source string // what the user typed, such as --listen; used in messages
}

// Load reads, merges and checks the configuration. Everything wrong with it comes
// back at once as Problems (use errors.As); a file that cannot be read at all
// comes back as the error of the file system.
//
// Without CheckFiles nothing but opts.File is touched, so that a configuration can
// be checked on another machine than the one it is for; with it, certificates,
// secrets and the resources file must be there, and secrets are filled in. A
// secret named by a variable is filled in either way when opts.Env has it.
func Load(opts Options) (*Config, error) {
	var data []byte
	if opts.File != "" {
		var err error
		if data, err = readFile(opts.File); err != nil {
			return nil, fmt.Errorf("cannot read the configuration: %w", err)
		}
	}
	return load(data, opts)
}

// readFile reads a little more than parse accepts, so that parse can say that the
// file is too large.
func readFile(path string) ([]byte, error) {
	f, err := os.Open(filepath.Clean(path))
	if err != nil {
		return nil, err
	}
	data, err := io.ReadAll(io.LimitReader(f, maxFileBytes+16))
	if err = errors.Join(err, f.Close()); err != nil {
		return nil, err
	}
	return data, nil
}

func load(data []byte, opts Options) (*Config, error) {
	if opts.BaseDir == "" && opts.File != "" {
		opts.BaseDir = filepath.Dir(opts.File)
	}
	d := newDecoder(opts.BaseDir)
	d.config.file = opts.File
	d.defaults()
	d.readFile(data, opts.File)
	d.readEnv(opts.Env)
	d.readFlags(opts)
	d.derive(opts)
	d.secrets(opts)
	d.check()
	if opts.CheckFiles {
		d.checkFiles()
	}
	if len(d.problems) > 0 {
		d.problems.sort()
		return nil, d.problems
	}
	d.warn()
	d.config.warnings, d.config.given = d.warnings, d.given
	return d.config, nil
}

func (d *decoder) defaults() {
	d.layer, d.source = layerDefault, "default"
	for _, f := range d.fields {
		if f.hasDef {
			d.setText(f, f.def)
		}
	}
}

func (d *decoder) readFile(data []byte, name string) {
	d.layer, d.source = layerFile, name
	root, problems := parse(data, name)
	d.problems = append(d.problems, problems...)
	d.section(root, "")
	d.foldSynonyms()
	d.config.says = slices.ContainsFunc(d.fields, func(f field) bool { return d.origins[f.path].layer == layerFile })
}

func (d *decoder) readFlags(opts Options) {
	d.layer = layerFlag
	overrides := opts.Overrides
	if opts.DataDir != "" {
		overrides = append(slices.Clip(overrides), Override{Key: "dataDir", Value: opts.DataDir, Source: "--data"})
	}
	for _, o := range overrides {
		d.source = o.Source
		f, known := d.byPath[o.Key]
		if !known || f.section {
			d.problems = append(d.problems, Problem{Source: o.Source, Key: o.Key, Message: "unknown key; " + d.suggest("", o.Key)})
			continue
		}
		d.setText(f, o.Value)
	}
	d.foldSynonyms()
}

// foldSynonyms moves what the layer just read gave under another name to the
// key's own name, and reports the two saying different things.
func (d *decoder) foldSynonyms() {
	for _, section := range d.fields {
		if section.synonym == "" {
			continue
		}
		for _, f := range d.fields {
			rest, inside := strings.CutPrefix(f.path, section.path+".")
			if !inside || d.origins[f.path].layer != d.layer {
				continue
			}
			own := d.byPath[section.synonym+"."+rest]
			value, ownValue := d.value(f), d.value(own)
			if d.origins[own.path].layer == d.layer && !ownValue.IsNil() && ownValue.Elem().Int() != value.Elem().Int() {
				d.problemOf(f.path, fmt.Sprintf("is another name of %s, and the two differ (%d and %d); keep one of them", own.path, value.Elem().Int(), ownValue.Elem().Int()))
			} else {
				ownValue.Set(value)
				d.origins[own.path] = d.origins[f.path]
			}
			value.SetZero()
		}
	}
}

// derive fills in the defaults that depend on other keys or on the machine.
func (d *decoder) derive(opts Options) {
	c := d.config
	if c.Storage.Path != "" && !d.given("dataDir") {
		c.DataDir = filepath.Dir(c.Storage.Path)
	}
	if c.Storage.Path == "" {
		c.Storage.Path = filepath.Join(c.DataDir, "node.db")
	}
	if c.Control.Store.Path == "" {
		c.Control.Store.Path = filepath.Join(c.DataDir, "control.db")
	}
	if c.Node.Name == "" {
		c.Node.Name = opts.Hostname
	}
	if c.Node.Name == "" {
		// Without a host name the node still needs one; the operator can set it.
		if name, err := os.Hostname(); err == nil && name != "" {
			c.Node.Name = name
		} else {
			c.Node.Name = "carpool"
		}
	}
}
