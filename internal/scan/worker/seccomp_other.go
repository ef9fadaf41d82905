//go:build !amd64 && !arm64

package worker

// The filter is not written for other architectures.
func haveFilter() bool { return false }

func restrictCalls(bool) error { return nil }
