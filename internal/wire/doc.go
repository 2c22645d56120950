// Package wire describes an HTTP exchange as bytes, so that the request path does not depend on an HTTP library.
//
// A Head is the list of header fields in order and case. A Request comes from a client, a Writer answers it, a Client
// talks to upstreams. Both ends speak HTTP/1.1 over connections by themselves: Plain towards clients, Client towards upstreams.
// What has another shape is left to net/http, by Handler at the one end and through proxies at the other; net/http loses
// the order and the case of the fields, so there a Head is sorted by canonical name.
package wire
