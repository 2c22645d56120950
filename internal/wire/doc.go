// Package wire describes an HTTP exchange as bytes, so that the request path does not depend on an HTTP library.
//
// A Head is the list of header fields in order and case. A Request comes from a client, a Writer answers it, a Client
// talks to upstreams. Two adaptors join these types to net/http: Handler at the client's end, Client at the upstream's.
// net/http loses the order and the case of the fields it receives, so there a Head is sorted by canonical name; another
// adaptor can keep them.
package wire
