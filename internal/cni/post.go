package cni

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"os"
	"strconv"
	"syscall"
	"time"
)

// errNoAgent says that nobody listens on the socket.
var errNoAgent = errors.New("nobody answers")

// maxAnswer bounds the agent's answer, in bytes.
const maxAnswer = 8 << 20

// post sends one HTTP/1.1 POST over a unix socket and returns the body of a
// 200 answer. It speaks just enough HTTP for that: one request, one answer of
// known length, then the connection is closed (RFC 9112).
func post(socket, path string, body []byte, timeout time.Duration) ([]byte, error) {
	f, err := dial(socket, timeout)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	req := make([]byte, 0, len(body)+160)
	req = append(req, "POST "+path+" HTTP/1.1\r\nHost: agent\r\nContent-Type: application/json\r\nConnection: close\r\nContent-Length: "...)
	req = strconv.AppendInt(req, int64(len(body)), 10)
	req = append(append(req, "\r\n\r\n"...), body...)
	if _, err := f.Write(req); err != nil {
		return nil, fmt.Errorf("send the request: %w", err)
	}
	answer, err := io.ReadAll(io.LimitReader(f, maxAnswer))
	if err != nil {
		return nil, fmt.Errorf("read the answer: %w", err)
	}
	return parseAnswer(answer)
}

// dial connects to a unix socket without package net.
func dial(socket string, timeout time.Duration) (*os.File, error) {
	if len(socket) > 107 {
		return nil, fmt.Errorf("socket path %q is longer than 107 bytes", socket)
	}
	fd, err := syscall.Socket(syscall.AF_UNIX, syscall.SOCK_STREAM|syscall.SOCK_CLOEXEC, 0)
	if err != nil {
		return nil, fmt.Errorf("open a unix socket: %w", err)
	}
	if err := connect(fd, socket); err != nil {
		syscall.Close(fd)
		if errors.Is(err, syscall.ENOENT) || errors.Is(err, syscall.ECONNREFUSED) {
			return nil, fmt.Errorf("%w at %s: %w", errNoAgent, socket, err)
		}
		return nil, fmt.Errorf("connect to %s: %w", socket, err)
	}
	if err := syscall.SetNonblock(fd, true); err != nil {
		syscall.Close(fd)
		return nil, err
	}
	f := os.NewFile(uintptr(fd), socket)
	if err := f.SetDeadline(time.Now().Add(timeout)); err != nil {
		f.Close()
		return nil, err
	}
	return f, nil
}

// connect tries again when a signal interrupts it.
func connect(fd int, socket string) error {
	for {
		err := syscall.Connect(fd, &syscall.SockaddrUnix{Name: socket})
		if !errors.Is(err, syscall.EINTR) {
			return err
		}
	}
}

// parseAnswer takes an HTTP/1.1 answer apart.
func parseAnswer(answer []byte) ([]byte, error) {
	head, body, ok := bytes.Cut(answer, []byte("\r\n\r\n"))
	if !ok {
		return nil, fmt.Errorf("the connection ended in the middle of the answer (%d bytes)", len(answer))
	}
	lines := bytes.Split(head, []byte("\r\n"))
	status := bytes.Fields(lines[0])
	if len(status) < 2 || !bytes.HasPrefix(status[0], []byte("HTTP/1.")) {
		return nil, fmt.Errorf("not an HTTP answer: %q", lines[0])
	}
	for _, line := range lines[1:] {
		name, value, _ := bytes.Cut(line, []byte(":"))
		value = bytes.TrimSpace(value)
		switch {
		case bytes.EqualFold(name, []byte("Content-Length")):
			n, err := strconv.Atoi(string(value))
			if err != nil || n > len(body) || n < 0 {
				return nil, fmt.Errorf("the answer was cut: %d bytes of %s", len(body), value)
			}
			body = body[:n]
		case bytes.EqualFold(name, []byte("Transfer-Encoding")):
			return nil, fmt.Errorf("the answer has transfer encoding %q, which is not spoken here", value)
		}
	}
	if string(status[1]) != "200" {
		return nil, fmt.Errorf("status %s: %s", status[1], bytes.TrimSpace(body))
	}
	return body, nil
}
