//go:build !race

package servicetest

// raceDetector says whether the test was built with -race.
const raceDetector = false
