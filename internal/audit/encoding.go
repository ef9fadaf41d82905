package audit

import (
	"encoding/binary"
	"fmt"
	"math"
	"strings"
	"time"
	"unicode/utf8"
)

// recordVersion is the first byte of a record.
const recordVersion = 1

// Limits of a record. What is longer is cut by Append, visibly; a decoder
// refuses it.
const (
	maxRecord = 64 << 10 // bytes of the whole record
	maxField  = 4 << 10  // bytes of one argument or other field
	maxArgs   = 1024
	maxArgsKB = 32 << 10 // bytes of all arguments
)

// encode returns the canonical bytes of a record. All integers are big endian:
//
//	version uint8 = 1
//	sequence uint64
//	time, uid, login uid, status, elapsed int64 (times in nanoseconds, the
//	  first since 1970-01-01 UTC)
//	user, tty, remote, command, result: each length uint32, bytes
//	count of arguments uint32, then each: length uint32, bytes
func encode(seq uint64, a Act) []byte {
	be := binary.BigEndian
	b := append(make([]byte, 0, 256), recordVersion)
	b = be.AppendUint64(b, seq)
	for _, n := range []int64{a.Time.UnixNano(), int64(a.Actor.UID), a.Actor.LoginUID, int64(a.Status), int64(a.Elapsed)} {
		b = be.AppendUint64(b, uint64(n))
	}
	for _, s := range []string{a.Actor.User, a.Actor.TTY, a.Actor.Remote, a.Command, a.Result} {
		b = be.AppendUint32(b, uint32(len(s)))
		b = append(b, s...)
	}
	b = be.AppendUint32(b, uint32(len(a.Args)))
	for _, s := range a.Args {
		b = be.AppendUint32(b, uint32(len(s)))
		b = append(b, s...)
	}
	return b
}

// DecodeError says where a record cannot be read.
type DecodeError struct {
	Offset int // in bytes from the beginning of the record
	What   string
}

func (e *DecodeError) Error() string { return fmt.Sprintf("%s at byte %d", e.What, e.Offset) }

// decode reads what encode wrote. It accepts nothing else, so each record has
// one encoding. Its error is a *DecodeError.
func decode(b []byte) (seq uint64, a Act, err error) {
	d := decoder{b: b}
	if len(b) > maxRecord {
		return 0, a, &DecodeError{maxRecord, "record is too large"}
	}
	if v := d.take(1, "version"); d.err == nil && v[0] != recordVersion {
		return 0, a, &DecodeError{0, fmt.Sprintf("unknown version %d", v[0])}
	}
	seq = d.uint64("sequence")
	a.Time = time.Unix(0, int64(d.uint64("time"))).UTC()
	a.Actor.UID = d.int("uid")
	a.Actor.LoginUID = int64(d.uint64("login uid"))
	a.Status = d.int("status")
	a.Elapsed = time.Duration(d.uint64("elapsed"))
	a.Actor.User = d.string("user")
	a.Actor.TTY = d.string("tty")
	a.Actor.Remote = d.string("remote")
	a.Command = d.string("command")
	a.Result = d.string("result")
	n := d.uint32("count of arguments")
	if n > maxArgs {
		d.fail("too many arguments")
	}
	for i := uint32(0); i < n && d.err == nil; i++ {
		a.Args = append(a.Args, d.string("argument"))
	}
	if d.err == nil && d.at < len(b) {
		d.fail("something follows the record")
	}
	return seq, a, d.err
}

type decoder struct {
	b   []byte
	at  int
	err error
}

func (d *decoder) fail(what string) {
	if d.err == nil {
		d.err = &DecodeError{d.at, what}
	}
}

func (d *decoder) take(n int, what string) []byte {
	if d.err == nil && n > len(d.b)-d.at {
		d.fail(what + " is cut off")
	}
	if d.err != nil {
		return make([]byte, min(n, 8))
	}
	d.at += n
	return d.b[d.at-n : d.at]
}

func (d *decoder) uint64(what string) uint64 { return binary.BigEndian.Uint64(d.take(8, what)) }
func (d *decoder) uint32(what string) uint32 { return binary.BigEndian.Uint32(d.take(4, what)) }

func (d *decoder) int(what string) int {
	n := int64(d.uint64(what))
	if n < math.MinInt || n > math.MaxInt {
		d.fail(what + " is out of range")
	}
	return int(n)
}

func (d *decoder) string(what string) string {
	n := d.uint32(what)
	if n > maxField {
		d.fail(what + " is too long")
		return ""
	}
	b := d.take(int(n), what)
	if d.err != nil {
		return ""
	}
	return string(b)
}

// bounded cuts what is too long for a record, and says so in it. The result
// becomes one line without the secrets that messages repeat.
func bounded(a Act) Act {
	a.Actor.User = cut(a.Actor.User)
	a.Actor.TTY = cut(a.Actor.TTY)
	a.Actor.Remote = cut(a.Actor.Remote)
	a.Command = cut(a.Command)
	a.Result = cut(redactText(strings.Join(strings.Fields(a.Result), " ")))
	var args []string
	size := 0
	for i, arg := range a.Args {
		arg = cut(arg)
		if size += len(arg) + 4; size > maxArgsKB || i >= maxArgs-1 {
			args = append(args, fmt.Sprintf("[and %d more arguments]", len(a.Args)-i))
			break
		}
		args = append(args, arg)
	}
	a.Args = args
	return a
}

func cut(s string) string {
	if len(s) <= maxField {
		return s
	}
	const room = 64 // for what is said about it
	n := maxField - room
	for n > maxField-room-utf8.UTFMax && !utf8.RuneStart(s[n]) {
		n--
	}
	return fmt.Sprintf("%s[and %d more bytes]", s[:n], len(s)-n)
}
