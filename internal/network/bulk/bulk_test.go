package bulk

import (
	"encoding/binary"
	"errors"
	"testing"

	"golang.org/x/sys/unix"
)

// TestEachHasItsAnswer: more requests than go at once, of which every third one
// asks for something that the kernel has.
func TestEachHasItsAnswer(t *testing.T) {
	var bodies [][]byte
	for i := range 5*together + 7 {
		link := make([]byte, unix.SizeofIfInfomsg)
		index := uint32(1) // lo
		if i%3 != 0 {
			index = 1 << 30
		}
		binary.NativeEndian.PutUint32(link[4:], index)
		bodies = append(bodies, link)
	}
	answers, err := Send(unix.NETLINK_ROUTE, unix.RTM_GETLINK, 0, bodies)
	if err != nil || len(answers) != len(bodies) {
		t.Fatalf("%d answers to %d requests, %v", len(answers), len(bodies), err)
	}
	for i, a := range answers {
		if i%3 == 0 && a != nil || i%3 != 0 && !errors.Is(a, unix.ENODEV) {
			t.Errorf("answer %d is %v", i, a)
		}
	}
	if answers, err := Send(unix.NETLINK_ROUTE, 0xfff0, 0, bodies[:1]); err != nil || answers[0] == nil {
		t.Errorf("a request that there is none of: %v, %v", answers, err)
	}
	if answers, err := Send(unix.NETLINK_ROUTE, unix.RTM_GETLINK, 0, nil); err != nil || len(answers) != 0 {
		t.Errorf("no requests: %v, %v", answers, err)
	}
}

// FuzzRead: whatever an answer of the kernel holds, reading it ends.
func FuzzRead(f *testing.F) {
	f.Add(appendRequest(nil, unix.NLMSG_ERROR, 0, 1, []byte{0xfe, 0xff, 0xff, 0xff}))
	f.Add([]byte{20, 0, 0, 0})
	f.Fuzz(func(t *testing.T, b []byte) {
		answers := make([]error, 4)
		got, err := read(b, answers, 1, 4)
		if answers[0] != nil {
			t.Error("the answer to a request that was not asked for")
		}
		if err == nil && got > len(b)/unix.NLMSG_HDRLEN {
			t.Errorf("%d answers in %d bytes", got, len(b))
		}
	})
}
