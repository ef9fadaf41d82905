//go:build race

package classify

// raceEnabled says that the race detector is at work.
const raceEnabled = true
