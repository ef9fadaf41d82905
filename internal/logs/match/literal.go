package match

// Finder looks for one literal in bytes. It does not change and may be used by
// many goroutines at once.
type Finder struct{ f *finder }

// NewFinder returns a finder of a literal, which must not be empty.
func NewFinder(lit Literal) *Finder { return &Finder{newFinder(lit)} }

// Next returns where the first occurrence that begins at or after from begins,
// or -1 when there is none. The ends of buf are ends of words.
func (f *Finder) Next(buf []byte, from int) int { return f.f.next(buf, from) }
