package reconcile

// Stats counts what a loop did since it was made and says where it stands.
type Stats struct {
	Passes    uint64 // attempts, most of which found nothing to do
	ReadBacks uint64 // times the world was read
	ReadFails uint64 // times it could not be
	Glances   uint64 // times it was glanced at
	Applies   uint64 // plans carried out
	Sets      uint64 // keys set and confirmed
	Deletes   uint64 // keys deleted and confirmed
	Failures  uint64 // keys that an attempt failed on
	Repaired  uint64 // changes that undid what somebody else did

	Wanted  int  // keys in the wanted table
	Pending int  // keys not compared yet
	Failing int  // keys whose last attempt failed
	InSync  bool // whether the wanted table is complete
}

// Stats returns the counters now.
func (l *Loop[K, V]) Stats() Stats {
	l.mu.Lock()
	defer l.mu.Unlock()
	s := l.stats
	s.Wanted, s.Failing, s.InSync = len(l.want), len(l.failed), l.inSync
	s.Pending = len(l.dirty) + len(l.flying)
	return s
}

// noteRead counts a read-back.
func (l *Loop[K, V]) noteRead(err error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.reading.unread = err != nil
	if err != nil {
		l.stats.ReadFails++
		return
	}
	l.stats.ReadBacks++
}
