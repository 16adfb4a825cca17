package resources

import (
	"slices"
	"strconv"
	"strings"

	"github.com/weirproxy/weir/services/discovery/internal/registry"
)

// View returns the view of an asker. The zone is in it if hosts are shown by
// zone, and the ID if askers are shown a part of the hosts each.
func (m *Maker) View(a Asker) View {
	var shown Asker
	if m.options.ZonePriorities || m.options.SubsetSize > 0 {
		shown.Region, shown.Zone = a.Region, a.Zone
		if a.Zone == "" {
			shown.Region = "" // by itself it makes no difference
		}
	}
	if m.options.SubsetSize > 0 {
		shown.ID = a.ID
	}
	if shown == (Asker{}) {
		return ""
	}
	return View(shown.frame())
}

// Narrow returns the part of a view that makes a difference to what Make makes of
// one listing: askers whose narrowed views are equal get the same of it, so that
// it need not be made for each. Who is shown all hosts is nobody in particular.
func (m *Maker) Narrow(v View, list registry.Listing) View {
	a := v.asker()
	isPart := m.options.SubsetSize > 0 && len(list.Hosts) > m.options.SubsetSize
	if !isPart {
		a.ID = ""
	}
	if !isPart && (!m.options.ZonePriorities || !hasNear(a, list.Hosts)) {
		a = Asker{}
	}
	if a == (Asker{}) {
		return ""
	}
	return View(a.frame())
}

// hasNear reports whether a host is in the asker's zone.
func hasNear(a Asker, hosts []registry.View) bool {
	return a.Zone != "" && slices.ContainsFunc(hosts, func(v registry.View) bool { return a.distance(&v.Host.Tags) == 0 })
}

// frame writes region, zone and ID so that View.asker can tell them apart,
// whatever bytes they hold: the lengths of the first two stand in front.
func (a Asker) frame() string {
	return strconv.Itoa(len(a.Region)) + "," + strconv.Itoa(len(a.Zone)) + ":" + a.Region + a.Zone + a.ID
}

// asker is the reverse of Maker.View. What is no view is that of no one in
// particular.
func (v View) asker() Asker {
	lengths, text, _ := strings.Cut(string(v), ":")
	before, after, _ := strings.Cut(lengths, ",")
	region, errRegion := strconv.Atoi(before)
	zone, errZone := strconv.Atoi(after)
	if errRegion != nil || errZone != nil || region < 0 || zone < 0 || region > len(text) || zone > len(text)-region {
		return Asker{}
	}
	return Asker{Region: text[:region], Zone: text[region : region+zone], ID: text[region+zone:]}
}

// distance says how far hosts with such tags are: 0 for the asker's own zone,
// 1 for its region, 2 for elsewhere. Zones of unlike regions are never one; a
// region that only one of the two names is taken to be the other's. All hosts
// are at 0 from an asker that names no zone.
func (a *Asker) distance(t *registry.Tags) int {
	sameRegion := a.Region == t.Region || a.Region == "" || t.Region == ""
	switch {
	case a.Zone == "" || sameRegion && a.Zone == t.Zone:
		return 0
	case a.Region != "" && a.Region == t.Region:
		return 1
	default:
		return 2
	}
}
