package lab

import (
	"net"
	"os"

	"golang.org/x/sys/unix"
)

// packetSocket reads the frames of one interface; a read ends when it is
// closed.
type packetSocket struct{ file *os.File }

func newPacketSocket(name string) (*packetSocket, error) {
	i, err := net.InterfaceByName(name)
	if err != nil {
		return nil, err
	}
	fd, err := unix.Socket(unix.AF_PACKET, unix.SOCK_RAW|unix.SOCK_CLOEXEC|unix.SOCK_NONBLOCK, 0)
	if err != nil {
		return nil, err
	}
	err = unix.SetsockoptInt(fd, unix.SOL_PACKET, unix.PACKET_IGNORE_OUTGOING, 1)
	if err == nil {
		err = unix.Bind(fd, &unix.SockaddrLinklayer{Protocol: big16(unix.ETH_P_ALL), Ifindex: i.Index})
	}
	if err != nil {
		unix.Close(fd)
		return nil, err
	}
	return &packetSocket{os.NewFile(uintptr(fd), "packets of "+name)}, nil
}

func (s *packetSocket) read(b []byte) (int, error) { return s.file.Read(b) }

func (s *packetSocket) close() { s.file.Close() }
