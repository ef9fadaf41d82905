package segment

import (
	"errors"

	"github.com/mobileops/mobileops/internal/failure"
)

// Enter runs f in the network namespace of a workload, on a thread that ends
// with it: sockets that f makes stay in the namespace. The error is of kind
// failure.NotReady when the workload is not there, or is none in a namespace.
func (a *Attach) Enter(f func() error) error {
	if !a.Namespaced() {
		return failure.New(failure.NotReady, "it is attached by its interface, and mobileops cannot run anything in it")
	}
	ns, err := openNamespace(a)
	if errors.Is(err, errAbsent) {
		return failure.Wrap(failure.NotReady, err)
	}
	if err != nil {
		return err
	}
	defer ns.Close()
	return within(ns, f)
}
