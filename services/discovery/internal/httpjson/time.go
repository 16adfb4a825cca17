package httpjson

import "time"

// TimeForm is how times are written: in UTC, the date, Between, the time of day with
// so many Digits of the second's fraction, 1 to 9, the rest of which is cut off, and
// Zone.
type TimeForm struct {
	Between byte
	Digits  int
	Zone    string
}

// RFC3339 is the form that RFC 3339 has, with so many digits of the fraction.
func RFC3339(digits int) TimeForm { return TimeForm{'T', digits, "Z"} }

const (
	dateLen   = len("2006-01-02")
	secondLen = len("2006-01-02T15:04:05.")
)

// Len is how many bytes a time has.
func (f *TimeForm) Len() int { return secondLen + f.Digits + len(f.Zone) }

// AppendTime appends a time.
func (f *TimeForm) AppendTime(b []byte, t time.Time) []byte {
	at := len(b)
	b = t.UTC().AppendFormat(b, time.RFC3339) // the one layout of a second that is written fast
	b[at+dateLen] = f.Between
	b[len(b)-1] = '.' // in the place of the Z
	at = len(b)
	b = append(b, "000000000"[:f.Digits]...)
	putFraction(b[at:], t.Nanosecond())
	return append(b, f.Zone...)
}

// Day is a date as it is written. Who writes many times of few days has one for all.
type Day struct {
	number int64 // of days since 1970, if there is a text
	text   [dateLen]byte
}

// Put is AppendTime over the bytes of b, which are Len, for a time in nanoseconds
// since 1970.
func (f *TimeForm) Put(b []byte, nanoseconds int64, day *Day) {
	if nanoseconds < 0 {
		f.AppendTime(b[:0], time.Unix(0, nanoseconds))
		return
	}
	const daySeconds = 24 * 60 * 60
	second := nanoseconds / int64(time.Second)
	number, ofDay := second/daySeconds, int(second%daySeconds)
	if day.number != number || day.text[0] == 0 {
		day.number = number
		time.Unix(second, 0).UTC().AppendFormat(day.text[:0], time.DateOnly)
	}
	copy(b, day.text[:])
	b[dateLen] = f.Between
	clock := b[dateLen+1:]
	_ = clock[8]
	putTwo(clock, ofDay/3600)
	clock[2] = ':'
	putTwo(clock[3:], ofDay/60%60)
	clock[5] = ':'
	putTwo(clock[6:], ofDay%60)
	clock[8] = '.'
	putFraction(b[secondLen:secondLen+f.Digits], int(nanoseconds%int64(time.Second)))
	copy(b[secondLen+f.Digits:], f.Zone)
}

// putTwo writes a number below 100.
func putTwo(b []byte, n int) { b[0], b[1] = '0'+byte(n/10), '0'+byte(n%10) }

// putFraction writes the first digits of nine, as many as b is long.
func putFraction(b []byte, nanoseconds int) {
	for range 9 - len(b) {
		nanoseconds /= 10
	}
	for i := len(b) - 1; i >= 0; i-- {
		b[i] = '0' + byte(nanoseconds%10)
		nanoseconds /= 10
	}
}
