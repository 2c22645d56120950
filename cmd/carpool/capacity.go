package main

import (
	"bufio"
	"math"
	"os"
	"runtime/debug"
	"strconv"
	"strings"

	"carpool/internal/config"
	"carpool/internal/gateway"
)

// capacity is what the machine, or the container, lets this process use.
type capacity struct {
	memory int64 // bytes
	files  int   // open at once
}

const (
	fallbackMemory = 1 << 30 // where the system does not tell
	fallbackFiles  = 16 << 10
	reservedFiles  = 512 // for databases, log, administration, metrics and idle upstream connections
)

func machineCapacity() capacity {
	c := capacity{memory: math.MaxInt64, files: openFiles()}
	for _, n := range []int64{
		debug.SetMemoryLimit(-1), // GOMEMLIMIT
		numberIn("/sys/fs/cgroup/memory.max"),
		numberIn("/sys/fs/cgroup/memory/memory.limit_in_bytes"),
		totalMemory("/proc/meminfo"),
	} {
		if n > 0 {
			c.memory = min(c.memory, n)
		}
	}
	if c.memory == math.MaxInt64 {
		c.memory = fallbackMemory
	}
	return c
}

// numberIn reads a file that holds one number; 0 when there is none, or no limit.
func numberIn(path string) int64 {
	data, err := os.ReadFile(path)
	if err != nil {
		return 0
	}
	n, err := strconv.ParseInt(strings.TrimSpace(string(data)), 10, 64)
	if err != nil {
		return 0
	}
	return n
}

// totalMemory reads the line "MemTotal: 12345 kB".
func totalMemory(path string) int64 {
	file, err := os.Open(path)
	if err != nil {
		return 0
	}
	defer file.Close()
	for lines := bufio.NewScanner(file); lines.Scan(); {
		fields := strings.Fields(lines.Text())
		if len(fields) == 3 && fields[0] == "MemTotal:" && fields[2] == "kB" {
			n, _ := strconv.ParseInt(fields[1], 10, 64)
			return n << 10
		}
	}
	return 0
}

// reserve is kept back from the open files, less where there are few.
func (c capacity) reserve() int { return min(reservedFiles, c.files/4) }

// connections is how many developers' connections are let in: each may need another one to an upstream.
func (c capacity) connections(s config.Server) int {
	return max(min(s.MaxConnections, (c.files-c.reserve())/2), 1)
}

// requests is how many requests are served at once. It matters over HTTP/2 only, where a connection carries many.
func (c capacity) requests(s config.Server) int {
	return max(c.files-c.reserve()-c.connections(s), 1)
}

// bodies are the limits of request bodies. Whatever the memory, one of the largest size fits.
func (c capacity) bodies(s config.Server) gateway.BodyLimits {
	memory := s.MaxBodyMemory
	if memory == 0 {
		memory = c.memory / 4
	}
	return gateway.BodyLimits{Size: s.MaxBodyBytes, Timeout: s.ReadBodyTimeout, Memory: max(memory, 1)}
}
