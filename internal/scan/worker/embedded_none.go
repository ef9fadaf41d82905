//go:build !bundled_scan

package worker

// embedded returns nothing: this mobileops was built without a worker in it.
func embedded() (*bundle, error) { return nil, nil }
