// Package config turns flags, environment, file and defaults into one
// validated Config value. It is the only package that knows viper.
package config

import "time"

// Config is everything that can be configured, validated.
type Config struct {
	StateDir    string        // where state.db and what it catalogues live
	LogDir      string        // where the signed audit heads are kept
	RunDir      string        // sockets and locks that need not survive a reboot
	Root        string        // the tree that stands for "/"
	LockTimeout time.Duration // how long to wait for another process's lease
	Integrity   Integrity
}

// Integrity configures the integrity engine.
type Integrity struct {
	Policy   string // name of a built-in policy, or the path of a policy file
	Jobs     int    // hashing workers; 0: chosen by storage
	IOLimit  int64  // bytes a second; 0: unlimited
	Idle     bool   // idle CPU and I/O priority
	Retained int    // baselines of one name kept
}
