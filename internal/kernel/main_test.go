package kernel

import "time"

// waitLimit bounds waiting for the kernel; only a broken test gets there.
const waitLimit = 10 * time.Second
