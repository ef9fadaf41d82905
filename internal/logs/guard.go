package logs

import "fmt"

// guarded searches a unit; a panic, which only a segment that was made to cause
// one could cause, becomes a problem of that unit.
func (w *worker) guarded(u *unit) (f found) {
	defer func() {
		if p := recover(); p != nil {
			f = found{unit: u, err: fmt.Errorf("cannot be read: %v", p)}
		}
	}()
	return w.search(u)
}
