import sys

from pipelines.folders import check_home

if __name__ == "__main__":
    check_home()  # before the steps are imported, which asks ZenML already

from pipelines.gan_augmentation import gan_augmentation

if __name__ == "__main__":
    gan_augmentation.main()
sys.modules[__name__] = gan_augmentation
