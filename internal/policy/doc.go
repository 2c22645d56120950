// Package policy holds the nouns of Carpool (users, teams, keys, upstreams, routes) and the compiled Snapshot a node serves from.
//
// Resources is what people write: the form of `carpool apply -f` and of the admin API's bodies. A Document is what control
// stores and sends to nodes: the same nouns with defaults filled in and key hashes instead of keys. Compile turns a Document
// into an immutable Snapshot with the look-ups a request needs: key by hash, upstreams by model. The package does no I/O.
package policy
