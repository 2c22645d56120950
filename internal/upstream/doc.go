// Package upstream sends exchanges to providers: it picks an upstream of a route, prepares the request in the provider's
// dialect, sends it, and judges the answer.
//
// What goes out is what came in, except the credential, the model's name where the upstream knows it by another, and the
// system block where the policy asks for it. What comes back is handed on as it is, except fields that describe the
// operator's account, and answers that would mislead the client: the gateway's own rejected credential, a page of HTML.
package upstream
