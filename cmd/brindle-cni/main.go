// Command brindle-cni is the CNI plugin, installed as brindle-ipam too. See
// package cni.
package main

import (
	"os"

	"github.com/brindle-net/brindle/internal/cni"
)

// version is set by the linker.
var version = "dev"

func main() {
	os.Exit(cni.Run(cni.Call{
		Name: os.Args[0], Args: os.Args[1:], Version: version, Getenv: os.Getenv, Stdin: os.Stdin, Stdout: os.Stdout, PID: os.Getpid(),
	}))
}
