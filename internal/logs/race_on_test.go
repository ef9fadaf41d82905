//go:build race

package logs

// raceEnabled says that the race detector is at work.
const raceEnabled = true
