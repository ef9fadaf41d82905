package lab

import (
	"bytes"
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"net"
	"sync"

	"golang.org/x/sys/unix"
)

// Raw says how a frame is sent by a packet(7) socket.
type Raw struct {
	// Bypass skips the queueing discipline (PACKET_QDISC_BYPASS).
	Bypass bool
	// Protocol is what the socket says that the frame is, whatever stands in
	// it; 0 for what stands in it.
	Protocol uint16
}

// Send sends a frame, with its Ethernet header, from an interface.
func (n *NIC) Send(frame []byte, how Raw) error {
	if len(frame) < 14 {
		return errors.New("a frame has a header of 14 bytes")
	}
	return n.Host.Do(func() error {
		i, err := net.InterfaceByName(n.Name)
		if err != nil {
			return err
		}
		fd, err := unix.Socket(unix.AF_PACKET, unix.SOCK_RAW|unix.SOCK_CLOEXEC, 0)
		if err != nil {
			return err
		}
		defer unix.Close(fd)
		if how.Bypass {
			if err := unix.SetsockoptInt(fd, unix.SOL_PACKET, unix.PACKET_QDISC_BYPASS, 1); err != nil {
				return err
			}
		}
		protocol := how.Protocol
		if protocol == 0 {
			protocol = uint16(frame[12])<<8 | uint16(frame[13])
		}
		return unix.Sendto(fd, frame, 0, &unix.SockaddrLinklayer{Protocol: big16(protocol), Ifindex: i.Index})
	})
}

func big16(v uint16) uint16 { return v>>8 | v<<8 }

// Sniffer keeps the frames that arrive at an interface.
type Sniffer struct {
	file   *packetSocket
	mu     sync.Mutex
	frames [][]byte
	news   chan struct{} // closed at the next frame
}

// Sniff listens at an interface until the end of the test. What the host sends
// itself is not among the frames.
//
// A packet socket sees frames before the kernel filters what comes in. That
// frames did not leave a host is seen at the other one.
func (n *NIC) Sniff() *Sniffer {
	n.Host.lab.t.Helper()
	s := &Sniffer{news: make(chan struct{})}
	n.Host.lab.must(n.Host.Do(func() (err error) {
		s.file, err = newPacketSocket(n.Name)
		return err
	}))
	n.Host.lab.t.Cleanup(s.file.close)
	go s.run()
	return s
}

// kept is how many frames a Sniffer keeps; older ones are forgotten.
const kept = 4096

func (s *Sniffer) run() {
	b := make([]byte, 65536)
	for {
		n, err := s.file.read(b)
		if err != nil {
			return
		}
		s.mu.Lock()
		s.frames = append(s.frames, bytes.Clone(b[:n]))
		if len(s.frames) > kept {
			s.frames = append([][]byte(nil), s.frames[kept/2:]...)
		}
		close(s.news)
		s.news = make(chan struct{})
		s.mu.Unlock()
	}
}

// Wait waits for a frame that a function wants.
func (s *Sniffer) Wait(ctx context.Context, wanted func(frame []byte) bool) error {
	seen := 0
	for {
		s.mu.Lock()
		frames, news := s.frames, s.news
		s.mu.Unlock()
		for _, f := range frames[min(seen, len(frames)):] {
			if wanted(f) {
				return nil
			}
		}
		seen = len(frames)
		select {
		case <-news:
			seen = min(seen, kept/2)
		case <-ctx.Done():
			return errors.New("no such frame came")
		}
	}
}

// Frames is a probe that sends frames from an interface and sees them arrive
// at another host's. Each has another token in it, which build puts where it
// likes: some bytes in a row that occur nowhere else.
func (n *NIC) Frames(name string, to *NIC, how Raw, build func(token []byte) []byte) *Probe {
	n.Host.lab.t.Helper()
	sniffer := to.Sniff()
	return &Probe{Name: fmt.Sprintf("%s %s → %s", name, n.Host.Name, to.Host.Name), Try: func(ctx context.Context) error {
		token := []byte(rand.Text())
		if err := n.Send(build(token), how); err != nil {
			return err
		}
		return sniffer.Wait(ctx, func(frame []byte) bool { return bytes.Contains(frame, token) })
	}}
}

// Forget drops the frames that have come so far: Wait then waits for new ones.
func (s *Sniffer) Forget() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.frames = nil
}
