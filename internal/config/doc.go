// Package config turns a file, the environment and flags into one validated
// Config.
//
// The struct Config is the only description of the configuration: its tags
// hold each key's default, its limits and its meaning, and the loader, the
// check, the JSON schema, the documentation table and the printed form all
// follow from them. Layers apply in this order, each over the one before:
//
//  1. defaults
//  2. the file, YAML or JSON (read by one parser, YAML being a superset)
//  3. the environment: CARPOOL_ and the key's path in upper snake case, such
//     as CARPOOL_SERVER_PORT for server.port; an empty variable counts as
//     absent
//  4. overrides from command line flags
//
// Reading is strict and reports everything at once: Load returns Problems, each
// with its file, line and column (or the variable or flag it came from), the
// key and what to do about it.
//
// A relative path in the file is relative to the file's folder; one from the
// environment or a flag is relative to the working folder.
//
// A secret never leaves the package as text by accident: Secret prints itself
// as asterisks everywhere and gives its value only to Reveal.
package config
