//go:build race

package filehash

// raceEnabled says that the race detector is at work.
const raceEnabled = true
