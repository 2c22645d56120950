//go:build linux

package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"syscall"
	"time"
)

const (
	startPatience = 20 * time.Second
	stopPatience  = 10 * time.Second

	// tick is what /proc counts processor time in: USER_HZ is 100 wherever Go runs on Linux.
	tick = 10 * time.Millisecond
)

// process is a program under measurement, with its children.
type process struct {
	cmd    *exec.Cmd
	output string        // file with all that it says
	ended  chan struct{} // closed when it has
	pids   []int         // its own and its children's, once it is ready
}

// start runs a program in a process group of its own, with nothing of this one's environment that could change what it does;
// its output goes to a file in dir.
func start(dir string, env []string, argv ...string) (*process, error) {
	p := &process{output: filepath.Join(dir, "output"), ended: make(chan struct{})}
	out, err := os.Create(p.output)
	if err != nil {
		return nil, fmt.Errorf("cannot start %s: %w", argv[0], err)
	}
	defer out.Close()
	p.cmd = exec.Command(argv[0], argv[1:]...)
	p.cmd.Dir, p.cmd.Env = dir, append([]string{"PATH=" + os.Getenv("PATH"), "HOME=" + dir}, env...)
	p.cmd.Stdout, p.cmd.Stderr = out, out
	p.cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true, Pdeathsig: syscall.SIGTERM}
	if err := p.cmd.Start(); err != nil {
		return nil, fmt.Errorf("cannot start %s: %w", argv[0], err)
	}
	go func() {
		_ = p.cmd.Wait() // it is told to end by a signal, and not all call that a success
		close(p.ended)
	}()
	return p, nil
}

// ready waits until the check succeeds and notes the processes that there are.
func (p *process) ready(ctx context.Context, check func() error) error {
	ctx, cancel := context.WithTimeout(ctx, startPatience)
	defer cancel()
	for {
		err := check()
		if err == nil {
			break
		}
		select {
		case <-p.ended:
			err = errors.New("it ended")
		case <-ctx.Done():
		case <-time.After(20 * time.Millisecond):
			continue
		}
		said, _ := os.ReadFile(p.output)
		return fmt.Errorf("%s is not ready: %w\n%s", p.cmd.Path, err, said[max(0, len(said)-2000):])
	}
	var err error
	p.pids, err = group(p.cmd.Process.Pid)
	return err
}

// stop asks the program to end and waits for it. Children that outlive it are killed.
func (p *process) stop() error {
	var err error
	_ = p.cmd.Process.Signal(syscall.SIGTERM) // it may have ended
	select {
	case <-p.ended:
	case <-time.After(stopPatience):
		err = fmt.Errorf("%s did not end within %v", p.cmd.Path, stopPatience)
	}
	_ = syscall.Kill(-p.cmd.Process.Pid, syscall.SIGKILL) // there is mostly none
	<-p.ended
	return err
}

// group lists the living processes of a process group.
func group(id int) ([]int, error) {
	stats, err := filepath.Glob("/proc/[0-9]*/stat")
	if err != nil {
		return nil, fmt.Errorf("cannot list processes: %w", err)
	}
	var pids []int
	for _, path := range stats {
		pid, _ := strconv.Atoi(filepath.Base(filepath.Dir(path)))
		if f := stat(pid); f != nil && number(f[2]) == int64(id) && f[0][0] != 'Z' {
			pids = append(pids, pid)
		}
	}
	if len(pids) == 0 {
		return nil, errors.New("cannot find the process in /proc")
	}
	return pids, nil
}

// stat returns the fields of /proc/PID/stat (proc(5)) from the third one, the state, on; nil if there is no such process.
func stat(pid int) [][]byte {
	b, err := os.ReadFile("/proc/" + strconv.Itoa(pid) + "/stat")
	if err != nil {
		return nil
	}
	f := bytes.Fields(b[bytes.LastIndexByte(b, ')')+1:]) // the name before may hold anything
	if len(f) < 22 {
		return nil
	}
	return f
}

func number(b []byte) int64 {
	n, _ := strconv.ParseInt(string(b), 10, 64) // the kernel writes numbers
	return n
}

// cpu is the user and system time that the processes have used.
func (p *process) cpu() time.Duration {
	var ticks int64
	for _, pid := range p.pids {
		if f := stat(pid); f != nil {
			ticks += number(f[11]) + number(f[12])
		}
	}
	return time.Duration(ticks) * tick
}

// machine is the processor time that all processes of the machine have used.
func machine() time.Duration {
	b, _ := os.ReadFile("/proc/stat")
	line, _, _ := bytes.Cut(b, []byte("\n"))
	var ticks int64
	for i, f := range bytes.Fields(line) {
		switch i {
		case 1, 2, 3, 6, 7: // user, nice, system, irq, softirq (proc(5))
			ticks += number(f)
		}
	}
	return time.Duration(ticks) * tick
}

// own is the processor time that this process has used.
func own() time.Duration {
	var used syscall.Rusage
	if syscall.Getrusage(syscall.RUSAGE_SELF, &used) != nil {
		return 0
	}
	return time.Duration(used.Utime.Nano() + used.Stime.Nano())
}

// memory is the resident memory of the processes in bytes; what they share counts for each.
func (p *process) memory() int64 {
	var pages int64
	for _, pid := range p.pids {
		if f := stat(pid); f != nil {
			pages += number(f[21])
		}
	}
	return pages * int64(os.Getpagesize())
}

// watchMemory notes the most memory that the processes have until stop is called.
func (p *process) watchMemory() (stop func() int64) {
	peak := p.memory()
	quit, done := make(chan struct{}), make(chan struct{})
	go func() {
		defer close(done)
		tick := time.NewTicker(200 * time.Millisecond)
		defer tick.Stop()
		for {
			select {
			case <-tick.C:
				peak = max(peak, p.memory())
			case <-quit:
				return
			}
		}
	}()
	return func() int64 {
		close(quit)
		<-done
		return peak
	}
}
