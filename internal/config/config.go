// Package config turns flags, environment, file and defaults into one
// validated Config value. It is the only package that knows viper.
//
// The keys are a table (see keys): name, what it means, its default and how a
// value is read. The commented file of "config init", the reference and the
// checks are made from that table. The file is YAML; an unknown key is an
// error, since a misspelt key would be a protection that somebody believes is
// on. Nothing is read until Load is called.
package config

import (
	"time"
)

// Config is everything that can be configured, validated.
type Config struct {
	StateDir    string        // where state.db and what it catalogues live
	LogDir      string        // where the signed audit heads are kept
	RunDir      string        // sockets and locks that need not survive a reboot
	Root        string        // the tree that stands for "/"
	LockTimeout time.Duration // how long to wait for another process's lease
	Integrity   Integrity
	Logs        Logs
	Network     Network
	Update      Update
	Plugin      Plugin
	Change      Change
	Scan        Scan
	Vulndb      Vulndb
}

// Integrity configures the integrity engine.
type Integrity struct {
	Policy   string // name of a built-in policy, or the path of a policy file
	Jobs     int    // hashing workers; 0: chosen by storage
	IOLimit  int64  // bytes a second; 0: unlimited
	Idle     bool   // idle CPU and I/O priority
	Retained int    // baselines of one name kept
	// PublicKey is the path of the key that must be in force in the history of
	// the baselines; "": the one in the state directory.
	PublicKey string
	// Runtimes are the sockets of container runtimes, each NAME=PATH; nil: where
	// they usually are.
	Runtimes []string
	// Anchors are where the end of that history is kept: file:PATH, an https
	// URL, or syslog:ADDRESS.
	Anchors     []string
	AnchorCA    string // path of certificates (PEM) that may vouch for the https anchors; "": the system's
	AnchorToken string // path of a file with the bearer token for the https anchors; "": none
}

// Logs configures what is collected and how it is kept.
type Logs struct {
	// Discover says whether the usual logs of a host are collected.
	Discover bool
	// Include are further files, each NAME=PATTERN or PATTERN; Exclude are
	// patterns of files that are not read.
	Include, Exclude []string
	// Formats say which format files are in that content does not tell, each
	// PATTERN=FORMAT.
	Formats []string
	Zone    string        // of records that name none; "": that of the host
	MaxAge  time.Duration // after which records are let go; 0: never
	MaxSize int64         // bytes of the store; 0: unlimited
	// Limits are those of single sources, each SOURCE=AGE or SOURCE=SIZE.
	Limits []string
	// Reserve is left free on the file system: bytes, and a percentage.
	Reserve        int64
	ReservePercent float64
	SealEvery      time.Duration // how often a changed store is sealed
	// Recipients is the path of a file with those who can read what is stored;
	// "": it is not encrypted. Identities is that of the keys to read it.
	Recipients, Identities string
}
