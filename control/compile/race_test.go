//go:build race

package compile

// raced: the race detector makes everything several times slower, and what is measured means nothing.
const raced = true
