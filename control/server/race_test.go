//go:build race

package server

// raced: the race detector makes everything, etcd too, several times slower.
const raced = true
