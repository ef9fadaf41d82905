//go:build !race

package finding

// raceFactor stretches time limits under the race detector.
const raceFactor = 1
