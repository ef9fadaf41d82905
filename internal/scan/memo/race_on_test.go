//go:build race

package memo

// raceEnabled says that the race detector is at work.
const raceEnabled = true
