//go:build !amd64

package blake3tree

func fast() bool { return false }

func forcePortable() (restore func()) { return func() {} }
