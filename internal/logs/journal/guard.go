package journal

import (
	"runtime/debug"
	"unsafe"
)

// guard calls fn and returns its error. When memory of one of the files
// vanishes meanwhile, because the file was cut, that is an error and not the
// end of the process. Any other panic goes on.
func guard(files []*file, fn func() error) (err error) {
	old := debug.SetPanicOnFault(true)
	defer func() {
		debug.SetPanicOnFault(old)
		if r := recover(); r != nil {
			if err = fault(files, r); err == nil {
				panic(r)
			}
		}
	}()
	return fn()
}

// fault returns the error for a panic that was a fault in a file, or nil.
func fault(files []*file, r any) error {
	a, ok := r.(interface{ Addr() uintptr })
	if !ok {
		return nil
	}
	for _, f := range files {
		for _, m := range append(f.old, f.all) {
			if len(m) == 0 {
				continue
			}
			start := uintptr(unsafe.Pointer(unsafe.SliceData(m)))
			if at := a.Addr() - start; a.Addr() >= start && at < uintptr(len(m)) {
				left := f.shrink()
				if uint64(at) < left {
					// The file is as long as before: the disk failed. Nothing
					// from here on is tried again.
					f.m = f.m[:at]
				}
				return f.bad(uint64(at), "the file was cut, or its disk failed, while it was read")
			}
		}
	}
	return nil
}
