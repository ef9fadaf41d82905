package seal

import "runtime"

// job is a segment on its way through a pipeline.
type job struct {
	index int64
	last  bool
	buf   []byte // capacity SegmentSize+tagSize
	err   error
	done  chan struct{} // receives once when it has been worked on
}

// pipeline works on segments in parallel and hands them back in their order.
// Its memory is bounded by the number of jobs that exist.
type pipeline struct {
	work, order chan *job
	free        chan *job
	made        int
}

func newPipeline(workers int, do func(*job)) *pipeline {
	if workers <= 0 {
		workers = runtime.GOMAXPROCS(0)
	}
	jobs := 2*workers + 2 // each worker has the next one waiting; one is filled, one is emptied
	p := &pipeline{
		work:  make(chan *job, jobs),
		order: make(chan *job, jobs),
		free:  make(chan *job, jobs),
	}
	for range workers {
		go func() {
			for j := range p.work {
				do(j)
				j.done <- struct{}{}
			}
		}()
	}
	return p
}

// take returns an empty job, and waits for one to come back when all are under
// way. It returns nil when stop is closed first.
func (p *pipeline) take(stop <-chan struct{}) *job {
	select {
	case j := <-p.free:
		return j
	default:
	}
	if p.made < cap(p.free) {
		p.made++
		return newJob()
	}
	select {
	case j := <-p.free:
		return j
	case <-stop:
		return nil
	}
}

func newJob() *job {
	return &job{buf: make([]byte, 0, SegmentSize+tagSize), done: make(chan struct{}, 1)}
}

// submit gives a job to the workers. Whoever receives from order waits for
// done, and gives the job back to free.
func (p *pipeline) submit(j *job) {
	p.order <- j
	p.work <- j
}

// finish says that nothing more is submitted.
func (p *pipeline) finish() {
	close(p.work)
	close(p.order)
}
