//go:build !amd64 && !arm64

package sandbox

import "errors"

// haveFilter says that there is a filter for this architecture.
const haveFilter = false

func restrictCalls(bool) error { return errors.ErrUnsupported }
