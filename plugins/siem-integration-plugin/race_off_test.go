//go:build !race

package main

// raced builds the plugin as this test was built.
const raced = false
