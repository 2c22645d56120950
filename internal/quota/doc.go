// Package quota is the arithmetic of spending: calendar windows, accounts with reservations, request rates and slots.
//
// Everything in it is pure: time is passed in, nothing is locked, nothing is stored. Values are changed in place, so a
// caller that shares them between goroutines guards them with its own lock.
package quota
