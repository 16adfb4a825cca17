package agent

import "syscall"

// lifeline has the kernel tell the program to end when the agent dies by a
// signal that it cannot catch: it would run on unregistered, with its port
// taken from the one that a restarted agent starts. The kernel takes the end of
// the thread that started the program for the agent's.
func lifeline() *syscall.SysProcAttr { return &syscall.SysProcAttr{Pdeathsig: syscall.SIGTERM} }
