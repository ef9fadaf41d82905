package netlink

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"testing"

	"golang.org/x/sys/unix"
)

func TestDumpOfTheKernel(t *testing.T) {
	c, err := Dial(unix.NETLINK_ROUTE)
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	for range 3 { // one socket serves several requests
		list, err := c.Dump(unix.RTM_GETLINK, make([]byte, unix.SizeofIfInfomsg))
		if err != nil {
			t.Fatal(err)
		}
		found := false
		for _, m := range list {
			_, attrs, err := After(m, unix.SizeofIfInfomsg)
			if err != nil {
				t.Fatal(err)
			}
			for _, a := range attrs {
				found = found || a.Type == unix.IFLA_IFNAME && a.Text() == "lo"
			}
		}
		if !found {
			t.Errorf("no lo in %d links", len(list))
		}
	}
	if _, err := c.Dump(0xfff0, nil); !errors.Is(err, unix.EOPNOTSUPP) && !errors.Is(err, unix.EINVAL) {
		t.Errorf("an unknown request gave %v", err)
	}
}

func TestDamagedMessages(t *testing.T) {
	for _, b := range [][]byte{{1}, {20, 0, 0, 0}, {3, 0, 1, 0}, {200, 0, 1, 0, 1}} {
		if _, err := Attributes(b); err == nil {
			t.Errorf("% x was taken", b)
		}
		if err := (&answer{}).read(b); err == nil {
			t.Errorf("message % x was taken", b)
		}
	}
	if _, _, err := After(make([]byte, 3), 4); err == nil {
		t.Error("a head that is cut off was taken")
	}
}

func FuzzAttributes(f *testing.F) {
	f.Add(Put(Put(nil, 1, []byte("lo\x00")), 0x8002, Put(nil, 3, []byte{1, 2, 3, 4})))
	f.Add([]byte{4, 0, 1, 0})
	f.Fuzz(func(t *testing.T, b []byte) {
		(&answer{}).read(b)
		list, err := Attributes(b)
		if err != nil {
			return
		}
		var again []byte
		for _, a := range list {
			a.Uint32()
			a.Big32()
			again = Put(again, a.Type, a.Value)
		}
		back, err := Attributes(again)
		if err != nil || len(back) != len(list) {
			t.Fatalf("written again: %v", err)
		}
		for i := range back {
			if back[i].Type != list[i].Type || !bytes.Equal(back[i].Value, list[i].Value) {
				t.Fatalf("attribute %d is another", i)
			}
		}
	})
}

// TestNexthops: the ways before damage, and an end whatever the sizes say.
func TestNexthops(t *testing.T) {
	way := func(index byte, gateway ...byte) []byte {
		b := Put(make([]byte, 8), unix.RTA_GATEWAY, gateway)
		binary.NativeEndian.PutUint16(b, uint16(len(b)))
		b[4] = index
		return b
	}
	whole := append(way(2, 192, 0, 2, 1), way(3, 1, 2)...)
	for name, tc := range map[string]struct {
		data []byte
		want string
	}{
		"two":        {whole, "2 192.0.2.1, 3 0102, "},
		"cut":        {whole[:len(whole)-1], "2 192.0.2.1, "},
		"size of 0":  {append(way(2, 192, 0, 2, 1), make([]byte, 16)...), "2 192.0.2.1, "},
		"none":       {nil, ""},
		"too little": {whole[:7], ""},
	} {
		got := ""
		for index, attrs := range Nexthops(tc.data) {
			got += fmt.Sprint(index, " ", AddressText(attrs[0].Value), ", ")
		}
		if got != tc.want {
			t.Errorf("%s: %q, want %q", name, got, tc.want)
		}
	}
}
