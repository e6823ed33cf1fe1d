//! Which device computes, and why: the device that draws the window where it is a real GPU, since frames and answers then share one
//! queue and the engine can leave the frames their time.

use pocketlm::{Device, DeviceInfo, EngineOptions, SharedDevice};

use crate::settings::Place;

/// The device that draws the window.
#[derive(Clone, Debug)]
pub struct Drawing {
    /// Its name.
    pub name: String,
    /// Whether it is a processor that pretends to be a GPU.
    pub is_software: bool,
    /// The device, or why the engine cannot use it.
    pub shared: Result<SharedDevice, String>,
}

/// What was chosen.
#[derive(Clone, Debug)]
pub struct Choice {
    /// For the engine.
    pub options: EngineOptions,
    /// Why.
    pub reason: String,
    /// Whether it is the device that draws the window.
    pub is_shared: bool,
}

/// What can be chosen: a line of the chooser.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Offer {
    /// The choice.
    pub place: Place,
    /// Its name.
    pub name: String,
    /// What it is, and why it would or would not be taken.
    pub about: String,
    /// Whether it can be chosen.
    pub is_usable: bool,
}

/// The device for `place`, of those that were `found`.
///
/// # Errors
/// Why it cannot be had.
pub fn choose(place: &Place, drawing: Option<&Drawing>, found: &[DeviceInfo]) -> Result<Choice, String> {
    let plain = |device, reason: String| Choice {
        options: EngineOptions { device, ..EngineOptions::default() },
        reason,
        is_shared: false,
    };
    match place {
        Place::Cpu => Ok(plain(Device::Cpu, "you chose the CPU".into())),
        Place::Window => match drawing.map(|drawing| &drawing.shared) {
            Some(Ok(shared)) => Ok(sharing(shared, "you chose the device that draws this window".into())),
            Some(Err(why)) => Err(format!("the window's device cannot compute: {why}")),
            None => Err("the window is not drawn by a device that can compute".into()),
        },
        Place::Gpu(name) => match found.iter().find(|device| device.name == *name) {
            Some(DeviceInfo { refused: Some(why), .. }) => Err(format!("{name} cannot be used: {why}")),
            Some(device) => Ok(plain(Device::Index(device.index), "you chose it".into())),
            None => Err(format!("{name} is not here any more")),
        },
        Place::Auto => Ok(match drawing {
            Some(Drawing { shared: Ok(shared), is_software: false, .. }) => {
                sharing(shared, "it draws this window, and frames keep their time".into())
            }
            Some(Drawing { is_software: true, name, .. }) => {
                let reason =
                    format!("the window is drawn in software ({name}), and a CPU is faster by itself");
                plain(Device::Auto, reason)
            }
            Some(Drawing { shared: Err(why), .. }) => {
                plain(Device::Auto, format!("the window's device cannot be shared ({why})"))
            }
            None => plain(Device::Auto, "the window's device is of another kind".into()),
        }),
    }
}

fn sharing(shared: &SharedDevice, reason: String) -> Choice {
    let options = EngineOptions { shared: Some(shared.clone()), ..EngineOptions::default() };
    Choice { options, reason, is_shared: true }
}

/// All that can be chosen.
pub fn offers(drawing: Option<&Drawing>, found: &[DeviceInfo]) -> Vec<Offer> {
    let automatic = match choose(&Place::Auto, drawing, found) {
        Ok(Choice { is_shared: true, reason, .. }) => {
            format!("takes {}: {reason}", drawing.map_or("the GPU", |drawing| &drawing.name))
        }
        Ok(Choice { reason, .. }) => {
            match found.iter().find(|device| !device.software && device.refused.is_none()) {
                Some(device) => format!("takes {} by itself: {reason}", device.name),
                None => format!("takes the CPU: {reason}"),
            }
        }
        Err(why) => why,
    };
    let offer =
        |place, name: &str, about: String, is_usable| Offer { place, name: name.into(), about, is_usable };
    let mut offers = vec![offer(Place::Auto, "Automatic", automatic, true)];
    if let Some(Drawing { name, shared, .. }) = drawing {
        let about = match shared {
            Ok(_) => format!("{name}: one device and one queue for frames and answers"),
            Err(why) => format!("{name}: {why}"),
        };
        offers.push(offer(Place::Window, "This window's GPU", about, shared.is_ok()));
    }
    for device in found {
        let software =
            if device.software { "software, slower than the CPU itself" } else { "a device of its own" };
        let about = match &device.refused {
            Some(why) => why.clone(),
            None => format!("{} · {} · {software}", device.backend, device.kind),
        };
        offers.push(offer(Place::Gpu(device.name.clone()), &device.name, about, device.refused.is_none()));
    }
    offers.push(offer(Place::Cpu, "CPU", "always there; the window's GPU is left alone".into(), true));
    offers
}

#[cfg(test)]
mod tests {
    use super::*;

    fn drawing(is_software: bool) -> Drawing {
        Drawing { name: "Drawer".into(), is_software, shared: Err("no immediates".into()) }
    }

    fn device(name: &str, index: usize, refused: Option<&str>) -> DeviceInfo {
        DeviceInfo { name: name.into(), index, refused: refused.map(str::to_owned), ..DeviceInfo::default() }
    }

    #[test]
    fn a_choice_has_its_reason() {
        let found = [device("A", 0, None), device("B", 1, Some("too old"))];
        let cpu = choose(&Place::Cpu, None, &found).unwrap();
        assert_eq!((cpu.options.device, cpu.is_shared), (Device::Cpu, false));
        let own = choose(&Place::Gpu("A".into()), None, &found).unwrap();
        assert_eq!(own.options.device, Device::Index(0));
        for (place, due) in [
            (Place::Gpu("B".into()), "too old"),
            (Place::Gpu("C".into()), "not here"),
            (Place::Window, "no immediates"),
        ] {
            assert!(choose(&place, Some(&drawing(false)), &found).unwrap_err().contains(due), "{place:?}");
        }
        for (is_software, due) in [(true, "software"), (false, "no immediates")] {
            let auto = choose(&Place::Auto, Some(&drawing(is_software)), &found).unwrap();
            assert!(auto.reason.contains(due) && !auto.is_shared, "{}", auto.reason);
        }
    }

    #[test]
    fn what_cannot_be_chosen_is_offered_with_its_reason() {
        let found = [device("A", 0, None), device("B", 1, Some("too old"))];
        let offers = offers(Some(&drawing(true)), &found);
        let told: Vec<_> = offers.iter().map(|offer| (offer.name.as_str(), offer.is_usable)).collect();
        let due =
            [("Automatic", true), ("This window's GPU", false), ("A", true), ("B", false), ("CPU", true)];
        assert_eq!(told, due);
        assert!(offers[0].about.contains("takes A by itself"), "{}", offers[0].about);
        assert!(offers[3].about.contains("too old"));
    }
}
