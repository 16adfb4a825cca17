//go:build !linux

package agent

import "syscall"

// lifeline is nothing where no kernel tells a program of its parent's death.
func lifeline() *syscall.SysProcAttr { return nil }
