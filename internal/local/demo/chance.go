package demo

import (
	"math/rand/v2"
	"time"
)

// The shoppers and buyers of the demo need no secret numbers.

// dice returns a number from 0 to below n.
func dice(n int) int { return rand.IntN(n) } // #nosec G404

// between returns a time from least to below most.
func between(least, most time.Duration) time.Duration {
	return least + rand.N(most-least) // #nosec G404
}

// shuffle puts a list into any order.
func shuffle[T any](list []T) {
	rand.Shuffle(len(list), func(i, j int) { list[i], list[j] = list[j], list[i] }) // #nosec G404
}
