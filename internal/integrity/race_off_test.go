//go:build !race

package integrity

// raceEnabled says that the race detector is at work.
const raceEnabled = false
